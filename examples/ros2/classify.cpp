// A ROS 2 node: takes arrays on the topic "input", and publishes what the model makes of them on "output".
//   ros2 run omex_ros2 classify --ros-args -p model:=model.omex -p memory_mb:=64
#include <omex_host.h>

#include <cstring>
#include <memory>
#include <rclcpp/rclcpp.hpp>
#include <std_msgs/msg/float32_multi_array.hpp>
#include <stdexcept>
#include <string>

namespace {

using Array = std_msgs::msg::Float32MultiArray;

struct Close {
    void operator()(omex_model *model) const { omex_model_close(model); }
};

class Classify : public rclcpp::Node {
public:
    Classify() : Node("classify") {
        const auto path = declare_parameter<std::string>("model", "");
        omex_options options{};
        options.memory = static_cast<std::uint64_t>(declare_parameter<int>("memory_mb", 0)) * 1'000'000;
        model_.reset(omex_model_open(path.c_str(), &options));
        if (!model_) throw std::runtime_error(omex_last_error());
        output_ = create_publisher<Array>("output", 10);
        input_ = create_subscription<Array>("input", 10, [this](const Array &input) { infer(input); });
    }

private:
    void infer(const Array &input) {
        omex_array in, out;
        if (omex_model_input(model_.get(), 0, &in) != 0) return complain();
        if (in.element != OMEX_ARRAY_ELEMENT_F32 || in.bytes != input.data.size() * sizeof(float)) {
            RCLCPP_ERROR(get_logger(), "found %zu floats, expected %zu bytes", input.data.size(), in.bytes);
            return;
        }
        std::memcpy(in.data, input.data.data(), in.bytes);
        if (omex_model_infer(model_.get()) != 0 || omex_model_output(model_.get(), 0, &out) != 0) return complain();
        if (out.element != OMEX_ARRAY_ELEMENT_F32) return;
        const auto *first = static_cast<const float *>(out.data);
        Array output;
        output.data.assign(first, first + out.bytes / sizeof(float));
        output_->publish(output);
    }

    void complain() const { RCLCPP_ERROR(get_logger(), "%s", omex_last_error()); }

    std::unique_ptr<omex_model, Close> model_;
    rclcpp::Publisher<Array>::SharedPtr output_;
    rclcpp::Subscription<Array>::SharedPtr input_;
};

} // namespace

int main(int argc, char **argv) {
    rclcpp::init(argc, argv);
    int result = 0;
    try {
        rclcpp::spin(std::make_shared<Classify>());
    } catch (const std::exception &error) {
        RCLCPP_FATAL(rclcpp::get_logger("classify"), "%s", error.what());
        result = 1;
    }
    rclcpp::shutdown();
    return result;
}
